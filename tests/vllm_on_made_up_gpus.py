"""The platform of vllm_plugin.py, in a module of its own: vLLM cannot be imported yet when it loads its plugins."""

from vllm.platforms.cpu import CpuPlatform


class OnMadeUpGpus(CpuPlatform):
    """CPUs that Ray calls GPUs."""

    ray_device_key = "GPU"
