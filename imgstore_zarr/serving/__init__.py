"""Recordings over HTTP: who may ask, how long anybody may take, and what is answered."""
