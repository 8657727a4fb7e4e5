#!/bin/sh
# Deploy the commit that is named by $1. Exit 0: done; 75: busy, try again later; any other: failed.
set -eu
commit=$1
checkout=${CHECKOUT:-/srv/shop}

exec 9>"$checkout/.deploy.lock"
flock --nonblock 9 || exit 75
git -C "$checkout" fetch --quiet origin "$commit"
git -C "$checkout" checkout --quiet --detach "$commit"
make -C "$checkout" deploy
