"""The command infoxlm-encode, for use from the repository."""

from infoxlm_jax.cli.encode import main

raise SystemExit(main())
