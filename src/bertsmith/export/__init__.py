"""A model as an ONNX file that needs neither torch nor bertsmith, and how such a file is run here."""
