"""What `tokenplace doctor` looks at: one function per thing, each giving findings. Nothing here prints."""
