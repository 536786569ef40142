"""A local web page that shows what a checkpoint makes of a picture, and where its attention looks."""
