import gpu

# Without a GPU, real or emulated, nothing is collected here: test_cuda.py runs these tests in processes that have one.
collect_ignore_glob = [] if gpu.MODE else ["*.py"]
gpu.start()
