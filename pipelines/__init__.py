"""The data set: manifest, planning, resume and the Ray Data flow around the actor. Knows nothing of argv."""
