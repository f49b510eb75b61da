"""The command infoxlm-inspect-data, for use from the repository."""

from infoxlm_jax.cli.inspect_data import main

raise SystemExit(main())
