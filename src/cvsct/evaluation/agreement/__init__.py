"""How far features of one set of images agree with those of another."""
