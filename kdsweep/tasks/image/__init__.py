"""Image classification: batches of uint8 images, keyed views, seeded splits."""
