"""Long jobs behind the verbs (training, pretraining, distillation, evaluation), without flags; `cli` imports
them.
"""
