"""Load generation, scenarios and reports. Speaks HTTP to a server and knows none of its code."""
