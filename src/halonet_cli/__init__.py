"""The `halonet` program. Its parsers import neither PyTorch nor `halonet`, which takes seconds to import."""
