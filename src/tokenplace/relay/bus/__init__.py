"""What carries messages between replicas of one relay."""
