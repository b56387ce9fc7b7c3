"""What runs beside Patroni in the pods of the database."""
