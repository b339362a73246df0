"""Fine-tuning on what was generated, exported or drawn: prepared with Ray Data, trained with Ray Train."""
