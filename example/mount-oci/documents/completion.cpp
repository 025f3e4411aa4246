// SPDX-License-Identifier: Apache-2.0
// Scripts that complete arguments in bash, zsh and fish.
#include <algorithm>
#include <cctype>

#include <erofs_oci/core/text.hpp>

#include "documents.hpp"

namespace mount_oci {
namespace {

/// A text between single quotes, of bash and zsh.
std::string quoted(std::string_view text) {
  std::string out = "'";
  for (auto const c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string joined(std::vector<std::string> const& words, std::string_view between) {
  std::string out;
  for (auto const& word : words) out.append(out.empty() ? "" : between).append(word);
  return out;
}

std::vector<std::string> alternatives(std::string_view value) {
  std::vector<std::string> out;
  while (!value.empty()) {
    out.emplace_back(erofs_oci::take_part(value, '|'));
  }
  return out;
}

bool is_placeholder(std::string const& value) {
  return std::isupper(static_cast<unsigned char>(value.front())) != 0;
}

/// What an option's value may be: words, paths, or neither.
struct Value {
  std::vector<std::string> choices;
  bool list = false;
  bool file = false;
  bool directory = false;
};

Value value_of(CommandOption const& option) {
  Value value;
  for (auto const& one : alternatives(option.value)) {
    if (one == "LIST") value.list = true;
    if (one == "FILE") value.file = true;
    if (one == "DIR") value.directory = true;
    if (!is_placeholder(one)) value.choices.push_back(one);
  }
  return value;
}

std::vector<std::string> const& cache_actions() {
  static std::vector<std::string> const actions{"ls", "du", "verify", "prune", "rm"};
  return actions;
}

// ---------------------------------------------------------------- bash

constexpr std::string_view bash_functions = R"BASH(
# Sets COMPREPLY to those of the arguments behind the first that begin with it. Bash cuts words at = and :,
# and replaces what is behind the last of them.
_mount_oci_reply() {
  local typed=$1 kept word
  shift
  kept=${typed%"${typed##*[=:]}"}
  for word; do
    if [[ $word == "$typed"* ]]; then COMPREPLY+=("${word#"$kept"}"); fi
  done
}

# The paths that begin with the second argument, each with the first in front; directories alone with -d.
_mount_oci_paths() {
  local before=$1 typed=$2 path
  shift 2
  while IFS= read -r path; do
    if [ -d "$path" ]; then path+=/; fi
    _mount_oci_reply "$before$typed" "$before$path"
  done < <(compgen "${@:--f}" -- "$typed")
  compopt -o nospace 2>/dev/null
}

_mount_oci_list() {
  local list=$1 last before key value words
  last=${list##*,}
  before=${list%"$last"}
  compopt -o nospace 2>/dev/null
  if [[ $last == *=* ]]; then
    key=${last%%=*} value=${last#*=}
    read -ra words <<<"$(_mount_oci_word_values "$key")"
    if [ "${words[0]-}" = PATH ]; then
      _mount_oci_paths "$before$key=" "$value"
      words=("${words[@]:1}")
    fi
    _mount_oci_reply "$list" "${words[@]/#/$before$key=}"
  else
    read -ra words <<<"$_mount_oci_words"
    _mount_oci_reply "$list" "${words[@]/#/$before}"
  fi
}

_mount_oci() {
  local line=${COMP_LINE:0:COMP_POINT} typed previous command=mount words=() values
  COMPREPLY=()
  read -ra words <<<"$line"
  if [[ $line == *[[:space:]] ]]; then words+=(""); fi
  typed=${words[-1]}
  previous=${words[-2]}
  if [ "${#words[@]}" -gt 2 ] && [[ " $_mount_oci_commands " == *" ${words[1]} "* ]]; then
    command=${words[1]}
  fi
  if [[ $typed == --*=* ]]; then
    previous=${typed%%=*}
    read -ra values <<<"$(_mount_oci_values "$command:$previous")"
    if [ "${values[0]-}" = LIST ]; then
      _mount_oci_list "${typed#*=}"
    elif [ "${values[0]-}" = PATH ]; then
      _mount_oci_paths "$previous=" "${typed#*=}"
    else
      _mount_oci_reply "$typed" "${values[@]/#/$previous=}"
    fi
    return
  fi
  read -ra values <<<"$(_mount_oci_values "$command:$previous")"
  case ${values[0]-} in
    LIST) _mount_oci_list "$typed" ;;
    PATH) 
      _mount_oci_paths "" "$typed"
      _mount_oci_reply "$typed" "${values[@]:1}"
      ;;
    ANY) ;;
    "")
      if [[ $typed == -* ]]; then
        read -ra values <<<"$(_mount_oci_options "$command")"
        _mount_oci_reply "$typed" "${values[@]}"
        return
      fi
      if [ "${#words[@]}" = 2 ]; then
        read -ra values <<<"$_mount_oci_commands help"
        _mount_oci_reply "$typed" "${values[@]}"
      elif [ "${words[1]}" = help ]; then
        read -ra values <<<"$_mount_oci_commands mount-oci.conf mount.erofs.nbd"
        _mount_oci_reply "$typed" "${values[@]}"
        return
      elif [ "$command" = cache ]; then
        _mount_oci_reply "$typed" CACHE_ACTIONS
        return
      fi
      if [ -z "${COMPREPLY[*]-}" ]; then _mount_oci_paths "" "$typed"; fi
      ;;
    *) _mount_oci_reply "$typed" "${values[@]}" ;;
  esac
}
complete -F _mount_oci mount-oci
)BASH";

// ---------------------------------------------------------------- zsh

/// A text inside [...] of _arguments and _values.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (auto const c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_action(Value const& value, std::string_view what) {
  std::string out = ":" + std::string(what) + ":";
  if (value.list) return out + "_mount-oci_words";
  if (value.file) return out + "_files";
  if (value.directory) return out + "_files -/";
  if (value.choices.empty()) return out + " ";
  return out + "(" + joined(value.choices, " ") + ")";
}

std::string zsh_option(CommandOption const& option) {
  auto const value = value_of(option);
  auto const repeats = value.list || std::ranges::count(option.names, "-v") > 0;
  auto const text = "[" + zsh_text(option.text) + "]";
  std::string out;
  for (auto const& name : option.names) {
    auto spec = repeats ? "*" + name : "(" + joined(option.names, " ") + ")" + name;
    if (!option.value.empty()) spec += name.starts_with("--") ? "=" : name.size() == 2 ? "+" : "";
    spec += text;
    if (!option.value.empty()) spec += zsh_action(value, zsh_text(option.value));
    out += "        " + quoted(spec) + " \\\n";
  }
  return out;
}

// ---------------------------------------------------------------- fish

/// A text between single quotes.
std::string fish_quoted(std::string_view text) {
  std::string out = "'";
  for (auto const c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string fish_option(std::string const& command, CommandOption const& option) {
  auto const value = value_of(option);
  std::string out = "complete -c mount-oci -n '__mount_oci_command " + command + "'";
  for (std::string_view name : option.names) {
    if (name.starts_with("--")) {
      out.append(" -l ").append(name.substr(2));
    } else {
      out.append(name.size() == 2 ? " -s " : " -o ").append(name.substr(1));
    }
  }
  if (!option.value.empty()) {
    if (value.list) {
      out += " -x -a '(__mount_oci_words)'";
    } else if (value.file || value.directory) {
      out += " -r -F";
      if (!value.choices.empty()) out += " -a " + fish_quoted(joined(value.choices, " "));
    } else {
      out += " -x";
      if (!value.choices.empty()) out += " -a " + fish_quoted(joined(value.choices, " "));
    }
  }
  return out + " -d " + fish_quoted(option.text) + "\n";
}

constexpr std::string_view fish_functions = R"FISH(
# Whether the command line is one of this command; mount is what is meant without any.
function __mount_oci_command
    set -l words (commandline -opc)
    set -l command mount
    if set -q words[2]; and contains -- $words[2] $__mount_oci_commands
        set command $words[2]
    end
    test $command = $argv[1]
end

function __mount_oci_first
    test (count (commandline -opc)) = 1
end

# Words of a list, behind those that are there already.
function __mount_oci_words
    set -l before (string match -r '^.*,' -- (commandline -ct))
    for line in $__mount_oci_word_lines
        echo "$before$line"
    end
end

complete -c mount-oci -n '__mount_oci_command cache' -f -a 'CACHE_ACTIONS'
)FISH";

std::string replaced(std::string_view text, std::string_view what, std::string const& by) {
  std::string out(text);
  for (std::size_t at = 0; (at = out.find(what, at)) != std::string::npos; at += by.size()) {
    out.replace(at, what.size(), by);
  }
  return out;
}

constexpr std::string_view header =
    "# Completes the arguments of mount-oci. Made of its own tables.\n";

}  // namespace

std::string bash_completion() {
  std::string out = "# shellcheck shell=bash\n" + std::string(header);
  auto const commands = command_pages();
  out += "_mount_oci_commands='" + joined(command_names(), " ") + "'\n";

  std::vector<std::string> words;
  std::string values;
  for (auto const& word : word_syntax()) {
    if (!word.needs_value) words.push_back(word.name);
    if (!word.takes_value) continue;
    if (word.needs_value) words.push_back(word.name + "=");
    if (word.choices.empty() && !word.path) continue;
    values += "    " + word.name + ") echo '" + (word.path ? "PATH " : "") +
              joined(word.choices, " ") + "' ;;\n";
  }
  out += "_mount_oci_words='" + joined(words, " ") + "'\n\n";
  out += "_mount_oci_word_values() {\n  case $1 in\n" + values + "  esac\n}\n\n";

  out += "_mount_oci_options() {\n  case $1 in\n";
  std::string of_options;
  for (auto const& command : commands) {
    std::vector<std::string> names;
    for (auto const& option : command.options) {
      names.insert(names.end(), option.names.begin(), option.names.end());
      if (option.value.empty()) continue;
      std::vector<std::string> patterns;
      for (auto const& name : option.names) patterns.push_back(command.name + ":" + name);
      auto const value = value_of(option);
      auto kind = joined(value.choices, " ");
      if (value.list) kind = "LIST";
      if (value.file || value.directory) kind.insert(0, "PATH ");
      if (kind.empty()) kind = "ANY";
      of_options += "    " + joined(patterns, " | ") + ") echo '" + kind + "' ;;\n";
    }
    out += "    " + command.name + ") echo '" + joined(names, " ") + "' ;;\n";
  }
  out += "  esac\n}\n\n";
  out += "_mount_oci_values() {\n  case $1 in\n" + of_options + "  esac\n}\n";
  return out + replaced(bash_functions, "CACHE_ACTIONS", joined(cache_actions(), " "));
}

std::string zsh_completion() {
  std::string out = "#compdef mount-oci\n" + std::string(header) + "\n";
  out += "_mount-oci_words() {\n  _values -s , word \\\n";
  for (auto const& word : word_syntax()) {
    auto spec = word.name + "[" + zsh_text(word.text) + "]";
    if (word.takes_value) {
      spec += word.needs_value ? ":" : "::";
      spec += "value:";
      spec += word.path              ? "_files"
              : word.choices.empty() ? " "
                                     : "(" + joined(word.choices, " ") + ")";
    }
    out += "    " + quoted(spec) + " \\\n";
  }
  out +=
      "    && return\n}\n\n_mount-oci() {\n  local command=mount\n  local -a commands\n  "
      "commands=(\n";
  auto const commands = command_pages();
  for (auto const& command : commands) {
    out += "    " + quoted(command.name + ":" + zsh_text(command.summary)) + "\n";
  }
  out += R"(    'help:print a page of the manual'
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe -t commands command commands
    _files
    return
  fi
  if (( ${commands[(I)$words[2]:*]} )); then
    command=$words[2]
    shift words
    (( CURRENT-- ))
  fi
  case $command in
)";
  for (auto const& command : commands) {
    out += "    " + command.name + ")\n      _arguments -s \\\n";
    for (auto const& option : command.options) out += zsh_option(option);
    out += command.name == "cache" ? "        '1:action:(" + joined(cache_actions(), " ") +
                                         ")' '*:digest: '\n      ;;\n"
                                   : "        '*:file:_files'\n      ;;\n";
  }
  out += "    help)\n      _arguments '1:page:(" + joined(command_names(), " ") +
         " mount-oci.conf mount.erofs.nbd)'\n      ;;\n";
  return out + "  esac\n}\n\n_mount-oci \"$@\"\n";
}

std::string fish_completion() {
  std::string out(header);
  out += "set -g __mount_oci_commands " + joined(command_names(), " ") + "\n";
  out += "set -g __mount_oci_word_lines \\\n";
  for (auto const& word : word_syntax()) {
    auto const line = [&](std::string const& text) {
      out += "    " + fish_quoted(text + "\t" + word.text) + " \\\n";
    };
    line(word.name + (word.needs_value ? "=" : ""));
    for (auto const& choice : word.choices) line(word.name + "=" + choice);
  }
  out += "\n";
  out += replaced(fish_functions, "CACHE_ACTIONS", joined(cache_actions(), " "));
  for (auto const& command : command_pages()) {
    out += "complete -c mount-oci -n __mount_oci_first -a " + command.name + " -d " +
           fish_quoted(command.summary) + "\n";
    for (auto const& option : command.options) out += fish_option(command.name, option);
  }
  return out +
         "complete -c mount-oci -n __mount_oci_first -a help -d 'print a page of the manual'\n";
}

}  // namespace mount_oci
