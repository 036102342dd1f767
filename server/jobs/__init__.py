"""The long jobs behind the verbs of the command line: training, pre-training, distillation and evaluation,
without their flags. `cli` imports this package.
"""
