import gpu

# test_cuda.py runs the other files in child processes that have a real or emulated GPU.
collect_ignore_glob = ["test_cuda.py"] if gpu.MODE else ["test_gpu_*.py"]
gpu.start()
