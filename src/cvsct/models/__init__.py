"""What maps one scanner's images to another's: networks, classical filters, the model folder."""
