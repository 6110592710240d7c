"""`somite web RUN`: a folder with a page that segments in the browser. It holds the run as an ONNX file, and what runs it."""

from .serve import serve
from .site import make_site

__all__ = ["make_site", "serve"]
