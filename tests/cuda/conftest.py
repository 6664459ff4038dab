import gpu

# test_cuda.py starts the others in processes of their own, which have a GPU, real or emulated.
collect_ignore_glob = ["test_cuda.py"] if gpu.MODE else ["test_gpu_*.py"]
gpu.start()
