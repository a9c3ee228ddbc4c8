"""The methods: one folder each; a name without underscore is a method, or the baselines."""
