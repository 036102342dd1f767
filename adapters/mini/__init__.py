"""The small bilingual base that ships with the project, its two adapters, and the recipe for all three."""
