#!/usr/bin/env bash
# limits.sh FILE: holds counts, lines of "CASE COUNTER VALUE", against limits.txt.
set -euo pipefail
awk '
  FNR == NR { if ($1 != "#" && NF == 3) limit[$1 " " $2] = $3; next }
  $2 == "refused_launches" && $3 > 0 { print "refused launches: " $0 > "/dev/stderr"; bad = 1 }
  ($1 " " $2) in limit && $3 > limit[$1 " " $2] {
    print $1 " " $2 " is " $3 ", more than the limit " limit[$1 " " $2] > "/dev/stderr"; bad = 1
  }
  END { exit bad }' "$(dirname "$0")/limits.txt" "$1"
