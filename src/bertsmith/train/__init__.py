"""Training: one loop for pretraining and fine-tuning, its optimizer, its plan, its checkpoints, its figures."""
