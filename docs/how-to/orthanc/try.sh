#!/usr/bin/env bash
# Starts an orthanc and a Groundglass node on this machine, gives orthanc a synthetic chest, and waits for the answer.
# Needs: apt-get install orthanc orthanc-dicomweb dcmtk curl, and Groundglass with its `dicom` extra.
# Everything lies in a folder of its own and is gone afterwards. GROUNDGLASS names another command than `groundglass`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
groundglass=${GROUNDGLASS:-groundglass}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

cp "$here/orthanc.json" "$here/route.lua" "$work"
mkdir "$work/orthanc-db"
Orthanc "$work/orthanc.json" 2>"$work/orthanc.log" &
$groundglass node --send-to ORTHANC@127.0.0.1:4242 --quiet-time 3 --store "$work/node" &

url=http://127.0.0.1:8042
for _ in $(seq 150); do
  curl --silent --fail --output /dev/null "$url/system" && echoscu -aec GROUNDGLASS -aet ORTHANC 127.0.0.1 11112 2>/dev/null &&
    break
  sleep 0.4
done

$groundglass phantom "$work/chest" --seed 3 --slices 12 --size 256 >/dev/null
storescu -aec ORTHANC +sd 127.0.0.1 4242 "$work/chest/series"

for _ in $(seq 300); do
  series=$(curl --silent "$url/dicom-web/series?includefield=SeriesDescription" || true)
  case $series in *"Groundglass result"*) break ;; esac
  sleep 0.4
done
case $series in
*"Groundglass result"*) ;;
*) echo "no answer came back" >&2; exit 1 ;;
esac

# the first result is there; the others follow it
for _ in $(seq 60); do
  $groundglass node status --store "$work/node" | grep -q "results waiting  *0" && break
  sleep 0.4
done

echo "What the study holds now:"
printf '%s' "$series" | grep -o '"[^"]*RESEARCH[^"]*"\|"synthetic chest"' | sort
$groundglass node status --store "$work/node"
