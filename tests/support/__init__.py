"""What tests share: labs of real components, made-up artefacts, programs that tests start."""
