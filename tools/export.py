"""The command infoxlm-export, for use from the repository."""

from infoxlm_jax.cli.export import main

raise SystemExit(main())
