"""Problems so small that rewards and divergences are exact: what the toy claims are tried on."""
