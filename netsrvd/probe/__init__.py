"""`netsrvd probe`: sends probes to reflectors and says what becomes of them."""
