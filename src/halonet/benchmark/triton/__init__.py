"""The Triton kernels, compiled and timed in other configurations, and what a GPU reaches at best."""
