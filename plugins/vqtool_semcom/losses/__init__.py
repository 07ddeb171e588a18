"""What pulls the soft path towards the deployed one."""
