"""Files: models, replay buffers and whole trainings."""
