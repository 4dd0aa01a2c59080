#!/usr/bin/env bash
# limits.sh FILE: holds counts, lines of "CASE COUNTER VALUE", against limits.txt. Every limit of a case in FILE must find
# its count, and every case its limits.
set -euo pipefail
awk '
  FNR == NR { if ($1 != "#" && NF == 3) { limit[$1 " " $2] = $3; limited[$1] }; next }
  $2 == "refused_launches" && $3 > 0 { print "refused launches: " $0 > "/dev/stderr"; bad = 1 }
  { cases[$1]; counted[$1 " " $2] }
  ($1 " " $2) in limit && $3 > limit[$1 " " $2] {
    print $1 " " $2 " is " $3 ", more than the limit " limit[$1 " " $2] > "/dev/stderr"; bad = 1
  }
  END {
    for (key in limit) {
      split(key, part, " ")
      if ((part[1] in cases) && !(key in counted)) { print key " was not counted" > "/dev/stderr"; bad = 1 }
    }
    for (name in cases) if (!(name in limited)) { print name " has no limits" > "/dev/stderr"; bad = 1 }
    exit bad
  }' "$(dirname "$0")/limits.txt" "$1"
