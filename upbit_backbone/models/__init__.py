"""What flows through the library: frozen values and closed vocabularies."""
