# For those who know the system by `cd tracker && ./tracker` and `cd client && ./client`. Cargo does the work.

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: all check demo clean

all:
	cargo build --release --locked --package tracker --package client
	cp $(TARGET)/release/tracker tracker/tracker
	cp $(TARGET)/release/client client/client

check:
	scripts/check.sh

demo:
	scripts/demo.sh

# Removes what `all` left here; `cargo clean` removes what Cargo built.
clean:
	rm -f tracker/tracker client/client
