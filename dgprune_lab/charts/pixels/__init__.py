"""Charts made of images: thumbnails, heat maps, overlays."""
