# The snapshots service as C++, made by protoc of the .proto files that Debian packages with containerd.

# erofs_oci_find_snapshotter(OUT): OUT becomes what is missing, or empty. Sets the targets and paths that
# example/snapshotter needs.
function(erofs_oci_find_snapshotter out)
  set(missing)
  find_package(Protobuf QUIET)
  find_package(gRPC CONFIG QUIET)
  find_package(SQLite3 QUIET)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(oci_re2 QUIET IMPORTED_TARGET GLOBAL re2)
    pkg_check_modules(oci_yaml QUIET IMPORTED_TARGET GLOBAL yaml-cpp)
  endif()
  find_program(EROFS_OCI_GRPC_PLUGIN grpc_cpp_plugin)
  find_path(EROFS_OCI_CONTAINERD_PROTO
            github.com/containerd/containerd/api/services/snapshots/v1/snapshots.proto
            HINTS /usr/share/gocode/src
            DOC "Directory with github.com/containerd/containerd/api")
  if(NOT TARGET protobuf::protoc)
    list(APPEND missing protobuf-compiler)
  endif()
  if(NOT TARGET gRPC::grpc++)
    list(APPEND missing libgrpc++-dev)
  endif()
  if(NOT SQLite3_FOUND)
    list(APPEND missing libsqlite3-dev)
  endif()
  if(NOT oci_re2_FOUND)
    list(APPEND missing libre2-dev)
  endif()
  if(NOT oci_yaml_FOUND)
    list(APPEND missing libyaml-cpp-dev)
  endif()
  if(NOT EROFS_OCI_GRPC_PLUGIN)
    list(APPEND missing protobuf-compiler-grpc)
  endif()
  if(NOT EROFS_OCI_CONTAINERD_PROTO)
    list(APPEND missing golang-github-containerd-containerd-dev)
  endif()
  set(${out} "${missing}" PARENT_SCOPE)
endfunction()

# erofs_oci_snapshots_proto(TARGET): a static library of the service.
function(erofs_oci_snapshots_proto target)
  set(place ${CMAKE_CURRENT_BINARY_DIR}/proto)
  set(sources)
  foreach(name services/snapshots/v1/snapshots types/mount)
    set(file github.com/containerd/containerd/api/${name})
    set(original ${EROFS_OCI_CONTAINERD_PROTO}/${file}.proto)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${original})
    # What gogoproto says is for Go alone, and would take its own .proto file, and more to compile.
    file(READ ${original} text)
    string(REGEX REPLACE "import [a-z ]*\"gogoproto/gogo.proto\";" "" text "${text}")
    string(REGEX REPLACE "option *\\(gogoproto[^;]*;" "" text "${text}")
    string(REGEX REPLACE " *\\[[^]]*\\(gogoproto[^]]*\\]" "" text "${text}")
    file(CONFIGURE OUTPUT ${place}/${file}.proto CONTENT "${text}" @ONLY)
    set(command protobuf::protoc --cpp_out ${place} --proto_path ${place})
    set(made ${place}/${file}.pb.cc)
    if(name MATCHES "^services/")
      list(APPEND command --grpc_out ${place} --plugin=protoc-gen-grpc=${EROFS_OCI_GRPC_PLUGIN})
      list(APPEND made ${place}/${file}.grpc.pb.cc)
    endif()
    add_custom_command(
      OUTPUT ${made}
      COMMAND ${command} ${file}.proto
      DEPENDS ${place}/${file}.proto
      VERBATIM)
    list(APPEND sources ${made})
  endforeach()
  # Our own, which is not beside containerd's, for tests make modules of all that is there.
  set(own ${CMAKE_CURRENT_BINARY_DIR}/own_proto)
  file(MAKE_DIRECTORY ${own})
  set(made ${own}/oci_snapshotter.pb.cc ${own}/oci_snapshotter.grpc.pb.cc)
  add_custom_command(
    OUTPUT ${made}
    COMMAND protobuf::protoc --cpp_out ${own} --proto_path ${CMAKE_CURRENT_SOURCE_DIR}/proto --grpc_out
            ${own} --plugin=protoc-gen-grpc=${EROFS_OCI_GRPC_PLUGIN} oci_snapshotter.proto
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/proto/oci_snapshotter.proto
    VERBATIM)
  add_library(${target} STATIC ${sources} ${made})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
  target_include_directories(${target} SYSTEM PUBLIC ${place} ${own})
endfunction()
