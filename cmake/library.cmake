# The library's targets: one INTERFACE component a folder of include/erofs_oci, each with its headers
# as a file set and the one or two libraries that it needs. erofs_oci::erofs_oci links them all.
find_package(tl-expected REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(nlohmann_json 3.10 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(httplib REQUIRED IMPORTED_TARGET cpp-httplib)
pkg_check_modules(libnl_genl REQUIRED IMPORTED_TARGET libnl-genl-3.0)
pkg_check_modules(isal IMPORTED_TARGET libisal)
find_package(range-v3 REQUIRED)

set(erofs_oci_include ${CMAKE_CURRENT_SOURCE_DIR}/include)
add_library(erofs_oci INTERFACE)
add_library(erofs_oci::erofs_oci ALIAS erofs_oci)

# erofs_oci_component(NAME FOLDERS folder... LINK library...)
function(erofs_oci_component name)
  cmake_parse_arguments(arg "" "" "FOLDERS;LINK" ${ARGN})
  set(headers)
  foreach(folder IN LISTS arg_FOLDERS)
    file(GLOB found CONFIGURE_DEPENDS ${erofs_oci_include}/erofs_oci/${folder}/*.hpp)
    list(APPEND headers ${found})
  endforeach()
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
  target_link_libraries(erofs_oci INTERFACE erofs_oci_${name})
endfunction()

erofs_oci_component(core FOLDERS core source combinator LINK tl::expected Threads::Threads)
erofs_oci_component(gzip FOLDERS gzip LINK erofs_oci_core ZLIB::ZLIB)
if(isal_FOUND)
  target_link_libraries(erofs_oci_gzip INTERFACE PkgConfig::isal)
  target_compile_definitions(erofs_oci_gzip INTERFACE EROFS_OCI_HAVE_ISAL=1)
endif()
erofs_oci_component(digest FOLDERS digest LINK erofs_oci_core OpenSSL::Crypto)
erofs_oci_component(erofs FOLDERS erofs LINK erofs_oci_core)
erofs_oci_component(oci FOLDERS oci LINK erofs_oci_digest nlohmann_json::nlohmann_json range-v3::range-v3)
erofs_oci_component(image FOLDERS image LINK erofs_oci_oci erofs_oci_gzip)
erofs_oci_component(http FOLDERS http LINK erofs_oci_image PkgConfig::httplib OpenSSL::SSL)
erofs_oci_component(nbd FOLDERS nbd LINK erofs_oci_core PkgConfig::libnl_genl)

# For people who write sources. Only the users of testing/ need rapidcheck, so it is linked by them.
erofs_oci_component(testing FOLDERS testing LINK erofs_oci_core)
find_path(rapidcheck_include rapidcheck/catch.h)
if(NOT rapidcheck_include)
  set_target_properties(erofs_oci_testing PROPERTIES VERIFY_INTERFACE_HEADER_SETS OFF)
endif()
