"""A page that predicts in the browser, with a run's graph and onnxruntime-web in it."""
