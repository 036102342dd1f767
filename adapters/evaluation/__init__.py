"""What adapters are measured by: a judge, the questions, scores and their intervals. Light."""
