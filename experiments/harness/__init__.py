"""What studies share: data, training, runs that resume, results, figures and claims."""
