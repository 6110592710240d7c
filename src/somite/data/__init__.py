"""From files to checked arrays and back: images, volumes, cases, splits."""
