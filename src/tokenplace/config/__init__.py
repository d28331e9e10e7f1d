"""Where settings come from: dotenv files, a configuration file, the process environment, and the original's names."""
