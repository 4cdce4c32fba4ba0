"""What the Vagrantfile makes of the settings: run by Ruby itself, with a stand-in for Vagrant that notes what it is told."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_utils.paths import repo_dir

pytestmark = pytest.mark.skipif(not shutil.which("ruby"), reason="there is no ruby here; Vagrant brings its own")

# Every call and every setting on `config` is noted as path and values; blocks are run with the same.
VAGRANT = """
require "json"
HOST = ENV["HOST_CPU"]
RbConfig::CONFIG["host_cpu"] = HOST
class Told
  SAID = []
  def initialize(path) = @path = path
  def method_missing(name, *values, **named, &block)
    path = "#{@path}.#{name}"
    path += "(#{values.map(&:to_s).join(" ")})" if block
    SAID << [path, values]
    block&.call(Told.new(path), Told.new("#{path}.override"))
    Told.new(path)
  end
  def respond_to_missing?(*) = true
end
module Vagrant
  def self.require_version(*) = nil
  def self.configure(_) = yield(Told.new("config"))
end
load ARGV[0]
puts JSON.generate(Told::SAID)
"""


def told(tmp_path: Path, cpu: str = "x86_64", **cluster: str) -> list[Any]:
    settings = yaml.safe_load((repo_dir() / "vagrant/settings.yaml").read_text())
    settings["cluster"] = {"name": "lab", "network": "192.168.56", **cluster}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "vagrant.rb").write_text(VAGRANT)
    words = ["ruby", "vagrant.rb", str(repo_dir() / "vagrant/Vagrantfile")]
    env = {"PATH": str(Path(shutil.which("ruby") or "").parent) + ":/usr/bin:/bin", "KIO_SETTINGS": "settings.yaml", "HOST_CPU": cpu}
    said = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return list(json.loads(said.stdout))


def boxes(said: list[Any], provider: str) -> set[str]:
    return {values[0] for path, values in said if path.endswith(f"({provider}).override.vm.box=")}


def test_without_lab_rubys_own_processor_decides(tmp_path: Path) -> None:
    assert boxes(told(tmp_path), "libvirt") == {"debian/bookworm64"}
    assert boxes(told(tmp_path, "arm64"), "libvirt") == {"cloud-image/debian-12"}


def test_what_lab_decided_goes_before_rubys_processor(tmp_path: Path) -> None:
    assert boxes(told(tmp_path, "x86_64", architecture="arm64"), "libvirt") == {"cloud-image/debian-12"}
    assert boxes(told(tmp_path, "x86_64", architecture="arm64", box="course"), "parallels") == {"course"}


def test_virtualbox_keeps_no_machine_of_the_box_beside_the_nodes(tmp_path: Path) -> None:
    assert {values[0] for path, values in told(tmp_path) if path.endswith("(virtualbox).linked_clone=")} == {False}
