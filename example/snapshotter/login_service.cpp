// SPDX-License-Identifier: Apache-2.0
#include "login_service.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include <erofs_oci/oci/credentials.hpp>
#include <erofs_oci/oci/json.hpp>
#include <erofs_oci/oci/reference.hpp>

#include "mount_tool.hpp"

namespace oci_snapshotter {
namespace {

/// Whether a repository's registry is the host that asks.
bool is_of_host(std::string const& repository, std::string const& host) {
  auto const parsed = erofs_oci::Reference::parse(repository);
  return parsed && host == erofs_oci::helper_server(parsed->registry);
}

std::string variable(char const* name) {
  auto const* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

grpc::Status LoginService::Find(grpc::ServerContext*, wire::FindLogin const* request,
                                wire::FoundLogin* response) {
  if (!is_of_host(request->repository(), request->host())) return grpc::Status::OK;
  if (auto const login = find_(request->repository())) {
    response->set_is_found(true);
    response->set_username(login->username);
    response->set_secret(login->secret);
  }
  return grpc::Status::OK;
}

int run_credential_helper(std::string const& verb) {
  if (verb != "get") {
    std::fprintf(stderr, "%s: only `get`\n", login_helper_program);
    return 1;
  }
  std::string host;
  std::getline(std::cin, host);
  wire::FindLogin request;
  request.set_repository(variable(login_repository_variable));
  request.set_host(host);
  auto const stub = wire::Logins::NewStub(grpc::CreateChannel(
      "unix:" + variable(login_address_variable), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(9500));
  wire::FoundLogin found;
  auto const status = stub->Find(&context, request, &found);
  if (!status.ok()) {
    std::fprintf(stderr, "%s: %s\n", login_helper_program, status.error_message().c_str());
    return 1;
  }
  if (!found.is_found()) {
    std::puts("credentials not found in native keychain");  // words that all helpers share
    return 1;
  }
  auto const text = erofs_oci::json::dump(
      {{"ServerURL", host}, {"Username", found.username()}, {"Secret", found.secret()}});
  std::puts(text.c_str());
  return 0;
}

}  // namespace oci_snapshotter
