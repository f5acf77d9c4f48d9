"""The data sets that come with the project, one file a set; `folkmoot.data.load` finds them."""
