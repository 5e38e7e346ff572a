"""The parts of the site that are made from the code: configuration, recipes, API. See mkdocs.yml."""
