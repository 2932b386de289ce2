"""What may be asked for in params.yaml and recipes, and what dvc.yaml says of the stages. Imports no torch."""
