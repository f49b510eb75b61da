"""The command infoxlm-doctor, for use from the repository."""

from infoxlm_jax.cli.doctor import main

raise SystemExit(main())
