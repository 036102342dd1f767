"""The small bilingual base that ships, its two adapters and their recipe; only its weights are used when
serving.
"""
