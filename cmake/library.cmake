# The library's targets: one INTERFACE component a folder of include/erofs_oci, each with its headers
# as a file set and the one or two libraries that it needs. erofs_oci::erofs_oci links all of them.
# A component whose library is missing is left out, and said so; only core is a must.
include(GNUInstallDirs)

set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)  # a project that adds us with add_subdirectory sees them too
find_package(tl-expected REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB)
find_package(OpenSSL)
find_package(nlohmann_json 3.10)
find_package(range-v3)
find_package(rapidcheck QUIET)
find_package(PkgConfig)
if(PkgConfig_FOUND)
  pkg_check_modules(httplib IMPORTED_TARGET GLOBAL cpp-httplib)
  pkg_check_modules(libnl_genl IMPORTED_TARGET GLOBAL libnl-genl-3.0)
  pkg_check_modules(isal IMPORTED_TARGET GLOBAL libisal)
  pkg_check_modules(fuse3 IMPORTED_TARGET GLOBAL fuse3)
endif()
unset(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL)

set(erofs_oci_include ${CMAKE_CURRENT_SOURCE_DIR}/include)
set(erofs_oci_components)
add_library(erofs_oci INTERFACE)
add_library(erofs_oci::erofs_oci ALIAS erofs_oci)

# erofs_oci_component(NAME [FOLDERS folder...] [FILES header...] [WITHOUT header...] [LINK library...]
#                     [REQUIRES pkg-config package...])
#
# REQUIRES is LINK in pkg-config's words, without our own components: those are taken from LINK.
function(erofs_oci_component name)
  cmake_parse_arguments(arg "" "" "FOLDERS;FILES;WITHOUT;LINK;REQUIRES" ${ARGN})
  foreach(library IN LISTS arg_LINK)
    if(NOT TARGET ${library})
      message(STATUS "erofs_oci: no component ${name}, for there is no ${library}")
      return()
    endif()
  endforeach()

  set(headers)
  foreach(folder IN LISTS arg_FOLDERS)
    file(GLOB found CONFIGURE_DEPENDS ${erofs_oci_include}/erofs_oci/${folder}/*.hpp)
    list(APPEND headers ${found})
  endforeach()
  list(TRANSFORM arg_FILES PREPEND ${erofs_oci_include}/erofs_oci/)
  list(TRANSFORM arg_WITHOUT PREPEND ${erofs_oci_include}/erofs_oci/)
  list(APPEND headers ${arg_FILES})
  if(arg_WITHOUT)
    list(REMOVE_ITEM headers ${arg_WITHOUT})
  endif()
  if(NOT headers)
    return()  # a component is born with its first header
  endif()

  add_library(erofs_oci_${name} INTERFACE)
  add_library(erofs_oci::${name} ALIAS erofs_oci_${name})
  target_sources(
    erofs_oci_${name}
    INTERFACE FILE_SET HEADERS
              BASE_DIRS ${erofs_oci_include}
              FILES ${headers})
  target_compile_features(erofs_oci_${name} INTERFACE cxx_std_20)
  target_link_libraries(erofs_oci_${name} INTERFACE ${arg_LINK})
  set_target_properties(
    erofs_oci_${name} PROPERTIES EXPORT_NAME ${name} VERIFY_INTERFACE_HEADER_SETS
                                                     ${PROJECT_IS_TOP_LEVEL})
  if(NOT name STREQUAL testing)  # for tests of sources; whoever wants it says so
    target_link_libraries(erofs_oci INTERFACE erofs_oci_${name})
  endif()

  set(requires ${arg_REQUIRES})
  set(below)  # all components under this one, each behind those under it
  foreach(library IN LISTS arg_LINK)
    if(library MATCHES "^erofs_oci_(.+)$")
      list(APPEND requires erofs_oci-${CMAKE_MATCH_1})
      get_property(further TARGET ${library} PROPERTY erofs_oci_below)
      list(APPEND below ${further} ${CMAKE_MATCH_1})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES below)
  set_property(TARGET erofs_oci_${name} PROPERTY erofs_oci_requires ${requires})
  set_property(TARGET erofs_oci_${name} PROPERTY erofs_oci_below ${below})
  set(erofs_oci_components ${erofs_oci_components} ${name} PARENT_SCOPE)
endfunction()

# digest/digest.hpp needs no library and names what combinator/ checks, so it belongs to core.
erofs_oci_component(
  core
  FOLDERS core source combinator
  FILES version.hpp fwd.hpp digest/digest.hpp
  LINK tl::expected Threads::Threads)
if(isal_FOUND)
  erofs_oci_component(
    gzip
    FOLDERS gzip
    LINK erofs_oci_core ZLIB::ZLIB PkgConfig::isal
    REQUIRES zlib libisal)
  if(TARGET erofs_oci_gzip)
    target_compile_definitions(erofs_oci_gzip INTERFACE EROFS_OCI_HAVE_ISAL=1)
  endif()
else()
  erofs_oci_component(
    gzip
    FOLDERS gzip
    WITHOUT gzip/isal_inflater.hpp
    LINK erofs_oci_core ZLIB::ZLIB
    REQUIRES zlib)
endif()
erofs_oci_component(
  digest
  FOLDERS digest
  WITHOUT digest/digest.hpp
  LINK erofs_oci_core OpenSSL::Crypto
  REQUIRES libcrypto)
erofs_oci_component(erofs FOLDERS erofs LINK erofs_oci_core)
erofs_oci_component(tar FOLDERS tar LINK erofs_oci_core range-v3::range-v3)
erofs_oci_component(
  tarindex
  FOLDERS tarindex
  LINK erofs_oci_digest erofs_oci_erofs erofs_oci_gzip erofs_oci_tar range-v3::range-v3)
erofs_oci_component(
  oci
  FOLDERS oci
  LINK erofs_oci_digest nlohmann_json::nlohmann_json range-v3::range-v3
  REQUIRES nlohmann_json)
erofs_oci_component(image FOLDERS image LINK erofs_oci_oci erofs_oci_tarindex)
erofs_oci_component(
  http
  FOLDERS http
  LINK erofs_oci_image PkgConfig::httplib OpenSSL::SSL
  REQUIRES cpp-httplib libssl)
erofs_oci_component(
  nbd
  FOLDERS nbd
  LINK erofs_oci_core PkgConfig::libnl_genl
  REQUIRES libnl-genl-3.0)
erofs_oci_component(
  fuse
  FOLDERS fuse
  LINK erofs_oci_erofs PkgConfig::fuse3
  REQUIRES fuse3)
erofs_oci_component(recovery FOLDERS recovery LINK erofs_oci_image erofs_oci_nbd)
erofs_oci_component(testing FOLDERS testing LINK erofs_oci_image rapidcheck)

# all.hpp needs every component, so it is the umbrella's.
target_sources(
  erofs_oci
  INTERFACE FILE_SET HEADERS
            BASE_DIRS ${erofs_oci_include}
            FILES ${erofs_oci_include}/erofs_oci/all.hpp)
set_target_properties(erofs_oci PROPERTIES VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})

if(EROFS_OCI_INSTALL)
  include(cmake/install.cmake)
endif()
